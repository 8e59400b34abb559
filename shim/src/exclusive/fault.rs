//! The handler of `SIGSEGV` by which a thread waits for managed memory. What is none of its business goes to whom it would have
//! gone to without it, in the form that was asked for there (sigaction(2)).
//!
//! A program may put a handler of its own in this one's place, which may or may not call this one. So each time that it is
//! found replaced, *another* function is put on top, which goes on to the handler found; this one goes on to whatever was there
//! before, so that no two call each other in turns.

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// How often a program may put a handler of its own on top.
const LAYERS: usize = 8;

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

static HANDLERS: [Handler; LAYERS] = [
    on_fault::<0>,
    on_fault::<1>,
    on_fault::<2>,
    on_fault::<3>,
    on_fault::<4>,
    on_fault::<5>,
    on_fault::<6>,
    on_fault::<7>,
];

/// What each layer found; never freed.
static PREVIOUS: [AtomicPtr<libc::sigaction>; LAYERS] = [const { AtomicPtr::new(null_mut()) }; LAYERS];

/// Layers in use.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

/// The reason of an access that the page's rights forbid (sigaction(2)).
const SEGV_ACCERR: libc::c_int = 2;

/// Set in the processor's error code where an instruction was to be fetched (Intel SDM, volume 3, "Page-Fault Exception").
const INSTRUCTION_FETCH: i64 = 1 << 4;

/// Makes sure that faults come here; `false` where the program has taken them for itself too often. One thread at a time.
pub(super) fn install() -> bool {
    let mut found = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: room for what is asked.
    if unsafe { libc::sigaction(libc::SIGSEGV, std::ptr::null(), found.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call has succeeded.
    let found = unsafe { found.assume_init() };
    if HANDLERS.iter().any(|handler| *handler as libc::sighandler_t == found.sa_sigaction) {
        return true;
    }
    let layer = INSTALLED.load(Ordering::Relaxed);
    let Some(handler) = HANDLERS.get(layer) else { return false };
    PREVIOUS[layer].store(Box::into_raw(Box::new(found)), Ordering::Release);
    INSTALLED.store(layer + 1, Ordering::Relaxed);
    set(
        *handler as libc::sighandler_t,
        libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART | libc::SA_NODEFER,
    )
}

/// Sets what becomes of the signal, with no others blocked meanwhile.
fn set(handler: libc::sighandler_t, flags: libc::c_int) -> bool {
    // SAFETY: all zeros is a value of this type: no flags and no signals.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    // SAFETY: a handler with these flags' signature.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, null_mut()) == 0 }
}

/// A thread has faulted. Everything here may run at any point of any thread: atomics, [`super::guarded::Guarded`], a few system
/// calls.
extern "C" fn on_fault<const LAYER: usize>(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the thread's own; the system's arguments of a handler with SA_SIGINFO.
    unsafe {
        let errno = libc::__errno_location();
        let before = errno.read();
        let is_ours =
            is_data_access(info, context) && super::wait_for((*info).si_addr().expose_provenance() as u64);
        errno.write(before);
        if !is_ours {
            pass_on(LAYER, signal, info, context);
        }
    }
}

/// Whether a page's rights forbade to read or write, which waiting may change.
///
/// # Safety
/// The system's arguments of a handler.
unsafe fn is_data_access(info: *const libc::siginfo_t, context: *const libc::c_void) -> bool {
    let context: *const libc::ucontext_t = context.cast();
    let register = usize::try_from(libc::REG_ERR).expect("an index");
    // SAFETY: by this function's contract.
    unsafe {
        (*info).si_code == SEGV_ACCERR && (*context).uc_mcontext.gregs[register] & INSTRUCTION_FETCH == 0
    }
}

/// Does what the layer has found: ends the process, ignores, or calls a handler, with the signals blocked that it wants blocked.
///
/// # Safety
/// The system's arguments of a handler.
unsafe fn pass_on(layer: usize, signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: stored before the layer became a handler, and never freed.
    let found = unsafe { *PREVIOUS[layer].load(Ordering::Acquire) };
    // SAFETY: by this function's contract.
    let was_sent = unsafe { (*info).si_code } <= 0;
    match found.sa_sigaction {
        libc::SIG_IGN if was_sent => {}
        // A fault cannot be ignored (signal(7)): back at its instruction it ends the process.
        libc::SIG_DFL | libc::SIG_IGN => {
            set(libc::SIG_DFL, 0);
            if was_sent {
                // SAFETY: no pointers.
                unsafe { libc::raise(signal) };
            }
        }
        handler => {
            let mut blocked = found.sa_mask;
            let mut before = MaybeUninit::<libc::sigset_t>::uninit();
            // SAFETY: sets of ours; a handler of the signature that its flags say.
            unsafe {
                if found.sa_flags & libc::SA_NODEFER == 0 {
                    libc::sigaddset(&raw mut blocked, signal);
                }
                if found.sa_flags & libc::SA_RESETHAND != 0 {
                    (*PREVIOUS[layer].load(Ordering::Acquire)).sa_sigaction = libc::SIG_DFL;
                }
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, before.as_mut_ptr());
                if found.sa_flags & libc::SA_SIGINFO == 0 {
                    std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler)(signal);
                } else {
                    std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
                }
                libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut());
            }
        }
    }
}
