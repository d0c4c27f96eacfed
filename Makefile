.PHONY: demo test
demo:
	@exec .venv/bin/latentlab explore
test:
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "not slow and not gpu"
