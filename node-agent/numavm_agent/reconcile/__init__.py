"""What should be done with each VM, and what is said of it: decisions are pure, actions are not."""
