"""tenth: open models at a tenth."""
