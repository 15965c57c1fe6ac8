//! Threads that help: see `www/src/threads.ts`.

use std::cell::RefCell;

use js_sys::Function;
use wasm_bindgen::prelude::*;
use webjepa_kernels::threads;

thread_local! {
    /// Has parts of work dealt out; called by the instance that shares only.
    static SHARE: RefCell<Option<Function>> = const { RefCell::new(None) };
}

/// Has work shared among `threads` from now on. `share` is given a number of parts, and returns when [`do_part`] has been called for
/// each of them, by this instance or by others on the same memory.
#[wasm_bindgen(js_name = shareWork)]
pub fn share_work(threads: usize, share: Function) {
    SHARE.set(Some(share));
    threads::join(threads, |parts| {
        let share = SHARE.with_borrow(|share| share.clone().expect("it was given"));
        let done = share.call1(&JsValue::UNDEFINED, &parts.into());
        done.expect("threads that compute stay");
    });
}

/// Does a part of what is being shared, as the thread of this number; others than 0 do nothing else.
#[wasm_bindgen(js_name = doPart)]
pub fn do_part(part: usize, thread: usize) {
    threads::part(part, thread);
}
