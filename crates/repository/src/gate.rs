//! Bounds on bytes under way, and buffers that are used again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Lets in work until a number of bytes is under way.
#[derive(Debug)]
pub(crate) struct Gate {
    bytes_max: usize,
    inside: Mutex<Inside>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    bytes: usize,
    /// How often someone had to wait, since it was asked for.
    waits: u64,
}

/// Some bytes under way; they leave when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    bytes: usize,
}

impl Gate {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            inside: Mutex::default(),
            left: Condvar::new(),
        })
    }

    /// Waits until `bytes` find room, and takes it. What is larger than all waits to be alone.
    pub(crate) fn enter(self: &Arc<Self>, bytes: usize) -> Permit {
        let bytes = bytes.min(self.bytes_max);
        let mut inside = self.wait(self.bytes_max - bytes);
        inside.bytes += bytes;
        Permit {
            gate: Arc::clone(self),
            bytes,
        }
    }

    /// Takes bytes without waiting.
    pub(crate) fn count(self: &Arc<Self>, bytes: usize) -> Permit {
        self.lock().bytes += bytes;
        Permit {
            gate: Arc::clone(self),
            bytes,
        }
    }

    /// Waits until what is inside leaves room for `bytes` beside it, or nothing is inside.
    pub(crate) fn wait_for_room(&self, bytes: usize) {
        drop(self.wait(self.bytes_max.saturating_sub(bytes)));
    }

    /// Waits until nothing is inside.
    pub(crate) fn wait_until_empty(&self) {
        drop(self.wait(0));
    }

    /// Tells how often someone waited since the last call.
    pub(crate) fn take_waits(&self) -> u64 {
        std::mem::take(&mut self.lock().waits)
    }

    fn wait(&self, inside_max: usize) -> MutexGuard<'_, Inside> {
        let mut inside = self.lock();
        if inside.bytes > inside_max {
            inside.waits += 1;
        }
        while inside.bytes > inside_max {
            inside = self
                .left
                .wait(inside)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inside
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.lock().bytes -= self.bytes;
        self.gate.left.notify_all();
    }
}

/// Buffers that wait to be used again. Given back to the allocator, large ones would be mapped
/// and cleared anew each time, or stay there in pieces.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    capacity: usize,
    count_max: usize,
}

impl Pool {
    /// Keeps at most `count_max` buffers of at least `capacity` bytes.
    pub(crate) fn new(capacity: usize, count_max: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::default(),
            capacity,
            count_max,
        })
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Gives an empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        let held = self.lock().pop();
        held.unwrap_or_else(|| Vec::with_capacity(self.capacity))
    }

    /// Takes a buffer back. One that is much larger than the others goes to the allocator.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let fits = self.capacity..=self.capacity.saturating_mul(2);
        if !fits.contains(&buffer.capacity()) {
            return;
        }
        buffer.clear();
        let mut free = self.lock();
        if free.len() < self.count_max {
            free.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn work_waits_until_bytes_have_left() {
        let gate = Gate::new(10);
        let first = gate.enter(6);
        let (sender, entered) = channel();
        std::thread::scope(|scope| {
            let other = Arc::clone(&gate);
            scope.spawn(move || {
                let second = other.enter(5);
                sender.send(()).unwrap();
                drop(second);
            });
            // It has counted its wait before it sleeps.
            while gate.take_waits() == 0 {
                std::thread::yield_now();
            }
            assert!(entered.try_recv().is_err());
            drop(first);
            assert!(entered.recv().is_ok());
        });
        let large = gate.enter(100);
        drop(large);
        let counted = gate.count(100);
        drop(counted);
        gate.wait_for_room(100);
        assert_eq!(gate.take_waits(), 0);
    }

    #[test]
    fn buffers_are_used_again_unless_they_are_much_larger() {
        let pool = Pool::new(1000, 1);
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"x");
        let place = buffer.as_ptr();
        pool.give(buffer);
        pool.give(Vec::with_capacity(1500));
        let again = pool.take();
        assert!(again.is_empty() && again.as_ptr() == place);
        pool.give(Vec::with_capacity(5000));
        assert_eq!(pool.lock().len(), 0);
    }
}
