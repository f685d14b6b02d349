"""IHE Scheduling: free slots found, held and asked for ($find, $hold, $book)."""
