"""The explorer: a Streamlit app over the package, and the live engine that feeds it while a person drags."""
