//! The whole gateway through its real binary, with scripted neighbours.

#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod access_log;
mod acme;
mod admin;
mod auth;
mod byok;
mod chat;
mod chat_stream;
mod cli;
mod clients;
mod demo;
mod docs;
mod drain;
mod examples;
mod forwarded;
mod grpc;
mod h2_abuse;
mod h2_traffic;
mod harness;
mod http1_limits;
mod limits;
mod malformed_http1;
mod metering;
mod pebble;
mod plugins;
mod process;
mod protocols;
mod proxying;
mod redis;
mod reload;
mod routing;
mod streams;
mod swap_under_load;
mod tls;
mod upgrade;
mod uploads;
mod websocket;
