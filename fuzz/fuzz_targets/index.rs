//! The input is a shard index. The files that an accepted one names lie beside it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use webjepa::checkpoint::shards;

fuzz_target!(|text: &str| {
    let Ok(files) = shards(text) else { return };
    assert!(!files.is_empty() && files.is_sorted());
    for file in files {
        let path = std::path::Path::new("folder").join(&file);
        assert_eq!(path.parent(), Some(std::path::Path::new("folder")));
        assert_eq!(path.file_name(), Some(file.as_ref()));
    }
});
