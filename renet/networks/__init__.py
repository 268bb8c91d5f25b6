"""The paper's networks: written as prototxt, and what they cost and see."""
