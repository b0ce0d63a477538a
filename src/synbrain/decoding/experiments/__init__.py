"""Many decoders side by side: how much synthetic trials help, and the table of methods."""
