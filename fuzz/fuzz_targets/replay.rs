//! The input is a file of recordings. What is read from an accepted one is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use webjepa::environment::Replay;

fuzz_target!(|file: &[u8]| {
    let Ok(replay) = Replay::load(file) else {
        return;
    };
    let again = Replay::load(&replay.save().expect("there is an episode"));
    assert_eq!(
        again.expect("it was written by us").episodes().len(),
        replay.episodes().len()
    );
});
