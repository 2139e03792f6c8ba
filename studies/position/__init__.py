"""What a patch network is told of where its patch lies, and what it loses without; docs/studies/position.md."""
