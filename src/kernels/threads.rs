//! Work that is shared among threads, where there are several: workers whose instances of the module have one memory.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::transmute;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Does the part with the first number, by the thread with the second one; 0 is the thread that shares.
pub type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

#[derive(Clone, Copy)]
struct Team {
    threads: usize,
    share: fn(usize),
}

thread_local! {
    static TEAM: Cell<Team> = const { Cell::new(Team { threads: 1, share: |_| () }) };
}

/// What is being shared, for threads that know nothing but numbers of parts.
static TASK: AtomicPtr<&'static Task<'static>> = AtomicPtr::new(ptr::null_mut());

/// From now on `each` of this thread shares its work among so many threads, itself one of them. `share` is given a number of parts, has
/// [`part`] called once for each of them, with the number of the thread, and returns when all of them are done.
pub fn join(threads: usize, share: fn(usize)) {
    TEAM.set(Team { threads, share });
}

/// Threads among which this one shares its work.
pub fn count() -> usize {
    TEAM.get().threads
}

/// Does the part `index` of what is being shared, in the thread of this number.
pub fn part(index: usize, thread: usize) {
    // SAFETY: it is called while `each` waits for what it has stored there.
    let task = unsafe { *TASK.load(Ordering::Acquire) };
    task(index, thread);
}

/// Does the parts `0..count`, in any order, by `threads`, which is 1 or [`count`]. A task shares nothing itself.
pub fn each(threads: usize, count: usize, task: &Task) {
    if threads == 1 || count < 2 {
        return (0..count).for_each(|index| task(index, 0));
    }
    // SAFETY: it is called before `share` returns only.
    let mut task: &'static Task<'static> = unsafe { transmute(task) };
    TASK.store(&raw mut task, Ordering::Release);
    (TEAM.get().share)(count);
}

/// Does [`each`] chunk of `size` values, of which the last can have fewer: given its number, itself, and the number of the thread.
pub fn chunks(
    threads: usize,
    values: &mut [f32],
    size: usize,
    task: &(dyn Fn(usize, &mut [f32], usize) + Sync),
) {
    let length = values.len();
    let values = Divided::new(values);
    each(threads, length.div_ceil(size), &|index, thread| {
        let range = index * size..length.min((index + 1) * size);
        // SAFETY: chunks do not overlap, and each is a part of its own.
        task(index, unsafe { values.part(range) }, thread);
    });
}

/// Values below which loops over rows are not worth sharing.
const SHARED: usize = 1 << 14;

/// Does rows: given the index of the first, some of them, and the value of each.
pub type RowsTask<'a> = dyn Fn(usize, &mut [f32], &mut [f32]) + Sync + 'a;

/// Does rows of `width` values: given the index of the first, and some of them. Each thread has as many.
pub fn rows(values: &mut [f32], width: usize, task: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let (threads, of_thread) = shares(values.len(), width);
    chunks(threads, values, of_thread * width, &|i, rows, _| {
        task(i * of_thread, rows);
    });
}

/// The same with a value for each row.
pub fn rows_and_values(rows: &mut [f32], width: usize, values: &mut [f32], task: &RowsTask) {
    let (threads, of_thread) = shares(rows.len(), width);
    let values = Divided::new(values);
    chunks(threads, rows, of_thread * width, &|i, rows, _| {
        let first = i * of_thread;
        // SAFETY: no row is in two chunks.
        let values = unsafe { values.part(first..first + rows.len() / width) };
        task(first, rows, values);
    });
}

/// Threads for so many values, and rows for each of them.
fn shares(values: usize, width: usize) -> (usize, usize) {
    let threads = match values {
        ..SHARED => 1,
        _ => count(),
    };
    (threads, (values / width).div_ceil(threads).max(1))
}

/// Values of which threads have ranges of their own.
pub struct Divided<'a> {
    values: *mut f32,
    length: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: `part` makes its callers answer for what threads have in common.
unsafe impl Sync for Divided<'_> {}

impl<'a> Divided<'a> {
    /// All of them.
    pub fn new(values: &'a mut [f32]) -> Self {
        Self {
            values: values.as_mut_ptr(),
            length: values.len(),
            lifetime: PhantomData,
        }
    }

    /// The values of a range.
    ///
    /// # Safety
    ///
    /// As long as it is used no other overlaps it.
    #[expect(clippy::mut_from_ref, reason = "the caller answers for that")]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: it is in bounds, and the caller has no other to these values.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(range.start), range.len()) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// One team at a time: what is shared has one place.
    static TEAMS: Mutex<()> = Mutex::new(());

    /// Has work shared with two threads of the system while `body` runs.
    pub(crate) fn with_three_threads(body: impl FnOnce()) {
        let _team = TEAMS.lock().unwrap_or_else(PoisonError::into_inner);
        join(3, |count| {
            let next = AtomicUsize::new(0);
            let help = |thread| {
                loop {
                    match next.fetch_add(1, Ordering::AcqRel) {
                        index if index < count => part(index, thread),
                        _ => break,
                    }
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(|| help(1));
                scope.spawn(|| help(2));
                help(0);
            });
        });
        body();
        join(1, |_| ());
    }

    #[test]
    fn parts_are_done_once() {
        with_three_threads(|| {
            for [rows, width] in [[1, 1], [40_000, 1], [7, 5_000], [3, 6_001]] {
                let mut values = vec![0.0; rows * width];
                let mut firsts = vec![0.0; rows];
                rows_and_values(&mut values, width, &mut firsts, &|first, values, firsts| {
                    values.iter_mut().for_each(|v| *v += 1.0);
                    for (i, value) in firsts.iter_mut().enumerate() {
                        *value += (first + i) as f32;
                    }
                });
                assert!(values.iter().all(|&v| v == 1.0));
                let indices: Vec<f32> = (0..rows).map(|i| i as f32).collect();
                assert_eq!(firsts, indices);
            }
        });
    }
}
