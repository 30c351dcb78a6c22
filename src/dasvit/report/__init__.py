"""What a run looks like: tables for the terminal. Reads files and numbers, never torch."""
