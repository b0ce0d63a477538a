"""The systems that SynBrain is compared with, behind one protocol."""
