//! Whether a stream may have brought something, asked without a look at its connection.
//!
//! A look takes the lock of the connection and an entry among those who wait for it. A session or a client waits for many
//! things at a time, and whichever of them comes, all are asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Remembers whether it was woken since the last look.
#[derive(Debug)]
pub(super) struct Readiness {
    signal: Arc<Signal>,
    /// Of the signal.
    waker: Waker,
}

#[derive(Debug)]
struct Signal {
    woken: AtomicBool,
    /// Who polled last.
    waits: AtomicWaker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.waits.wake();
    }
}

impl Default for Readiness {
    fn default() -> Self {
        let signal = Arc::new(Signal { woken: AtomicBool::new(true), waits: AtomicWaker::new() });
        Self { waker: signal.clone().into(), signal }
    }
}

impl Readiness {
    /// Looks, if there was nothing the last time only after it was woken since.
    pub(super) fn poll<T>(&self, context: &Context<'_>, mut look: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        loop {
            if !self.was_woken() {
                self.signal.waits.register(context.waker());
                // Woken before that, it has told nobody.
                if !self.was_woken() {
                    return Poll::Pending;
                }
            }
            if let Poll::Ready(found) = look(&mut Context::from_waker(&self.waker)) {
                // There may be more.
                self.signal.woken.store(true, Ordering::Release);
                return Poll::Ready(found);
            }
        }
    }

    fn was_woken(&self) -> bool {
        self.signal.woken.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;
    use crate::time::SystemClock;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A waker, and how often it was woken.
    fn counted() -> (Waker, impl Fn() -> usize) {
        let count = Arc::new(Count::default());
        (count.clone().into(), move || count.0.load(Ordering::SeqCst))
    }

    #[test]
    fn where_there_was_nothing_it_looks_again_only_once_it_was_woken() {
        let (readiness, looks, kept) = (Readiness::default(), Cell::new(0), Cell::new(None));
        let (waker, woken) = counted();
        let poll = || {
            readiness.poll(&Context::from_waker(&waker), |context| {
                looks.set(looks.get() + 1);
                kept.set(Some(context.waker().clone()));
                Poll::<()>::Pending
            })
        };
        assert!(poll().is_pending() && poll().is_pending() && poll().is_pending());
        assert_eq!((looks.get(), woken()), (1, 0));
        kept.take().unwrap().wake();
        assert_eq!((looks.get(), woken()), (1, 1));
        assert!(poll().is_pending() && poll().is_pending());
        assert_eq!((looks.get(), woken()), (2, 1));
    }

    #[test]
    fn where_there_was_something_it_looks_again() {
        let (readiness, left) = (Readiness::default(), Cell::new(3));
        let (waker, woken) = counted();
        let poll = || {
            readiness.poll(&Context::from_waker(&waker), |_| {
                left.set(left.get() - 1);
                if left.get() == 0 { Poll::Pending } else { Poll::Ready(left.get()) }
            })
        };
        assert_eq!([poll(), poll(), poll(), poll()], [Poll::Ready(2), Poll::Ready(1), Poll::Pending, Poll::Pending]);
        assert_eq!((left.get(), woken()), (0, 0));
    }

    #[test]
    fn what_comes_while_it_looks_is_not_missed() {
        let (readiness, looks) = (Readiness::default(), Cell::new(0));
        let (waker, _) = counted();
        let found = readiness.poll(&Context::from_waker(&waker), |context| {
            looks.set(looks.get() + 1);
            context.waker().wake_by_ref();
            if looks.get() == 5 { Poll::Ready(()) } else { Poll::Pending }
        });
        assert_eq!((found, looks.get()), (Poll::Ready(()), 5));
    }

    #[test]
    fn who_polled_last_is_woken() {
        let (readiness, kept) = (Readiness::default(), Cell::new(None));
        let ((first, first_woken), (last, last_woken)) = (counted(), counted());
        for waker in [&first, &last] {
            let polled = readiness.poll(&Context::from_waker(waker), |context| {
                kept.set(Some(context.waker().clone()));
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
        }
        kept.take().unwrap().wake();
        assert_eq!((first_woken(), last_woken()), (0, 1));
    }

    #[derive(Default)]
    struct Source {
        items: usize,
        waits: Option<Waker>,
    }

    fn spin(turns: usize) {
        (0..turns).for_each(|_| std::hint::spin_loop());
    }

    #[test]
    fn nothing_is_missed_whenever_it_comes() {
        const ROUNDS: usize = 200_000;
        let clock = SystemClock::shared();
        let (readiness, source, begun) = (Readiness::default(), Mutex::new(Source::default()), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for round in 1..=ROUNDS {
                    while begun.load(Ordering::SeqCst) < round {
                        std::thread::yield_now();
                    }
                    spin(round % 61);
                    let mut source = source.lock().unwrap();
                    source.items += 1;
                    let waits = source.waits.take();
                    drop(source);
                    waits.into_iter().for_each(Waker::wake);
                }
            });
            for round in 1..=ROUNDS {
                begun.store(round, Ordering::SeqCst);
                spin(round % 67);
                // Of this round alone: a wake of an earlier one hides nothing.
                let (waker, woken) = counted();
                let mut seen = 0;
                let look = |context: &mut Context<'_>| {
                    let mut source = source.lock().unwrap();
                    if source.items == 0 {
                        source.waits = Some(context.waker().clone());
                        return Poll::Pending;
                    }
                    source.items -= 1;
                    Poll::Ready(())
                };
                while readiness.poll(&Context::from_waker(&waker), look).is_pending() {
                    let since = clock.now();
                    while woken() == seen {
                        if clock.now().since(since) > Duration::from_secs(10) {
                            // The other waits for no more rounds.
                            begun.store(ROUNDS, Ordering::SeqCst);
                            panic!("nobody told of it");
                        }
                        std::thread::yield_now();
                    }
                    seen = woken();
                }
            }
        });
    }
}
