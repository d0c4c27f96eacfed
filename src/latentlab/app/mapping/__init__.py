"""The Map page's parts: codes that grow in the background, layouts, selections, groups, paths."""
