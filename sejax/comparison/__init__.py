"""Settings of one or several studies side by side, paired over speakers."""
