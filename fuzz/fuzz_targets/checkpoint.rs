//! The input is a whole safetensors file: read, planned and assembled.
#![no_main]

use libfuzzer_sys::fuzz_target;
use webjepa::checkpoint::Header;
use webjepa_fuzz::assembled;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::of(bytes) {
        assembled(header, bytes);
    }
});
