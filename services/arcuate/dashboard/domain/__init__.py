"""View models and the decisions behind them: pure, no I/O, no clock, no framework."""
