"""Whether the kernel confirms what was promised. Pure: texts in, verdicts out."""
