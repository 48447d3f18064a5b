//! A thread that keeps a running program.

use anyhow::{Result, anyhow};
use std::{sync::mpsc, thread};
use tokio::sync::oneshot;

type Order<T> = Box<dyn FnOnce(&mut T) + Send>;

/// Something that is made, used and dropped on one thread, which lasts as long as it.
///
/// Programs that [`private_postgres::processes`] starts end with the thread that started them, and working with them
/// blocks; both makes a test's own threads unfit.
pub(crate) struct Keeper<T> {
    orders: Option<mpsc::Sender<Order<T>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl<T: 'static> Keeper<T> {
    /// Makes it on a new thread.
    pub async fn start(make: impl FnOnce() -> Result<T> + Send + 'static) -> Result<Self> {
        let (orders, todo) = mpsc::channel::<Order<T>>();
        let (made, is_made) = oneshot::channel();
        let thread = thread::spawn(move || {
            let mut kept = match make() {
                Ok(kept) => kept,
                Err(error) => return drop(made.send(Err(error))),
            };
            drop(made.send(Ok(())));
            for order in todo {
                order(&mut kept);
            }
        });
        is_made.await.map_err(|_| anyhow!("the thread ended"))??;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Runs `work` on the value, in the thread that owns it.
    pub async fn with<R: Send + 'static>(&self, work: impl FnOnce(&mut T) -> R + Send + 'static) -> R {
        let (done, is_done) = oneshot::channel();
        let order: Order<T> = Box::new(move |kept| drop(done.send(work(kept))));
        self.orders.as_ref().and_then(|orders| orders.send(order).ok()).expect("the thread lasts");
        is_done.await.expect("the thread lasts")
    }
}

impl<T> Drop for Keeper<T> {
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
