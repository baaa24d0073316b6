"""From objects of the API server to what people read. Pure: objects in, values and text out."""
