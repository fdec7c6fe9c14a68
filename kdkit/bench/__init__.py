"""Speed, as ratios from one run: :mod:`kdkit.bench.distill` and :mod:`kdkit.bench.inference`."""
