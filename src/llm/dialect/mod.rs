//! One provider dialect per file: request map, answer map, stream machine.

pub(crate) mod anthropic;
pub(crate) mod openai;
