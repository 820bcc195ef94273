//! The front over real sockets: a relay on the real engine, an origin behind it.

mod http1;
mod http2;
mod listeners;
mod tls;
mod world;
