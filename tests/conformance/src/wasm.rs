//! The same checks for JavaScript hosts. The start function is the library's.

use js_sys::{Map, Uint8Array};
use wasm_bindgen::prelude::*;

use crate::{Folder, run};

/// Runs the checks on `files`, a Map of path to Uint8Array; resolves to the JSON text of the list of checks. `subgroups` says that
/// the device will have that feature.
#[wasm_bindgen]
pub async fn conformance(
    files: Map,
    only: Vec<String>,
    subgroups: bool,
) -> Result<String, JsValue> {
    if subgroups {
        webjepa::device::use_subgroups();
    }
    let mut folder = Folder::default();
    files.for_each(&mut |bytes, path| {
        if let Some(path) = path.as_string() {
            folder.0.insert(path, Uint8Array::new(&bytes).to_vec());
        }
    });
    let report = run(&folder, &only).await;
    serde_json::to_string(&report.checks).map_err(|e| JsValue::from_str(&e.to_string()))
}
