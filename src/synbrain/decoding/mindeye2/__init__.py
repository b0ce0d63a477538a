"""MindEye2: its networks, losses and training, and the layers that MindAligner adds."""
