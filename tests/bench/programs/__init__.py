"""Programs that benches run in processes of their own. Each takes its spec as one JSON text."""
