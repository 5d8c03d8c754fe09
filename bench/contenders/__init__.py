"""The servers that Clickmill is measured against, each as one would write it to be fast."""
