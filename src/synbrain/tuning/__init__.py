"""An image encoder tuned on the recordings of many subjects; the result is an encoder like any other."""
