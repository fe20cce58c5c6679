"""The shapes in which parts are put together to learn."""
