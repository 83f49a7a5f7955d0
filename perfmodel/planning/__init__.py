"""What does the asker want to know?  Everything a question names is read once and resolved; then it is answered."""
