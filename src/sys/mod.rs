//! The only room with `unsafe`: system and library calls that no crate of ours wraps, or wraps with
//! a limit that real hosts exceed. Thin: bytes and numbers in, values and errno out.
#![allow(unsafe_code)] // The rest of the crate denies it; this is where it may be.

pub mod nss;
