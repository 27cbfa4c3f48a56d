"""Whether more pretraining still helps: what frozen features tell."""
