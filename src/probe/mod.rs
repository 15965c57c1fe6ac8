//! What is read off embeddings.

pub mod pool;
