"""The generator learner: fake score and generator, each with an optimizer engine of its own."""
