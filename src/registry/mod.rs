//! Models: load, warm up, serve.
