//! Tollgate: an edge proxy and LLM gateway in one binary.

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod fault;
pub mod ledger;
pub mod limit;
pub mod llm;
pub mod plugin;
pub mod proxy;
pub mod route;
pub mod server;
pub mod state;
pub mod telemetry;
pub mod upstream;
