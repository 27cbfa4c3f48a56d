"""What every training does step after step: batches, updates, the schedule, and the loop."""
