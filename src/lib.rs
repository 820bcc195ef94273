//! Tollgate: an edge proxy and LLM gateway in one binary.

pub mod auth;
pub mod config;
pub mod fault;
pub mod ledger;
pub mod limit;
pub mod llm;
pub mod plugin;
pub mod route;
pub mod server;
pub mod state;
pub mod telemetry;
pub mod upstream;
