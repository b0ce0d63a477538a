"""Images to tokens: preprocessing, encoders and the token store."""
