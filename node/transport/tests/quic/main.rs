//! The transport over real QUIC on the loopback: ports are free ones, certificates are made for each test.
//!
//! Nothing here asserts a time. Where a test has to wait for something it waits for that very thing, and a watchdog
//! ends it with a message if it never comes.

mod calls;
mod certificates;
mod floods;
mod forged;
mod garbage;
mod hostile;
mod house;
mod link_faults;
mod peers;
mod raw;
mod renewal;
mod restart;
mod roles;
