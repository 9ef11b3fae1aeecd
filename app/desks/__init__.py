"""What is done on behalf of the pages: data, models, memory, runs and the queue."""
