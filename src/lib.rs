//! Tollgate: an edge proxy and LLM gateway in one binary.

pub mod config;
pub mod fault;
pub mod state;
pub mod telemetry;
