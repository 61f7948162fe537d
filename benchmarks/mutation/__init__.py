"""Would the tests see it if the ground were wrong? One change at a time."""
