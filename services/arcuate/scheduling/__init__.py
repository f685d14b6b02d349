"""Scheduling: who may not come, how long people wait, how long an exam takes."""
