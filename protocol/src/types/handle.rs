//! Handles: what CUDA calls `CUcontext`, `CUstream` and so on.

/// A CUDA handle type: a newtype over the number that C passes as an opaque pointer.
pub trait Handle: Copy + Eq + std::fmt::Debug + Send + Sync + 'static {
    /// What tells this type's handles apart from others on the wire.
    const KIND: HandleKind;
    /// The handle with this value.
    fn from_raw(raw: u64) -> Self;
    /// The value that C sees.
    fn raw(self) -> u64;
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident = $kind:ident($number:literal);)*) => {
        /// The kinds of handle that cross the wire; the number is part of every guest handle.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum HandleKind {
            $($(#[$doc])* $kind = $number,)*
        }

        impl HandleKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];
        }

        $(
            $(#[$doc])*
            #[repr(transparent)]
            #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
            pub struct $name(pub u64);

            impl $name {
                /// No object.
                pub const NULL: Self = Self(0);
                /// Whether this is the null handle.
                #[must_use]
                pub const fn is_null(self) -> bool {
                    self.0 == 0
                }
            }

            impl Handle for $name {
                const KIND: HandleKind = HandleKind::$kind;
                fn from_raw(raw: u64) -> Self {
                    Self(raw)
                }
                fn raw(self) -> u64 {
                    self.0
                }
            }

            impl std::fmt::Debug for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    write!(f, concat!(stringify!($name), "({:#x})"), self.0)
                }
            }
        )*
    };
}

handles! {
    /// A texture reference, or a surface reference ([`CUsurfref`]).
    CUtexref = TextureReference(0);
    /// A context.
    CUcontext = Context(1);
    /// A stream; 0, 1 and 2 name the default streams.
    CUstream = Stream(2);
    /// An event.
    CUevent = Event(3);
    /// A module.
    CUmodule = Module(4);
    /// A library.
    CUlibrary = Library(5);
    /// A function of a module. Every parameter of this type also accepts a [`CUkernel`] (measured: cudart 13
    /// launches kernels so).
    CUfunction = Function(6);
    /// A kernel of a library.
    CUkernel = Kernel(7);
    /// A graph.
    CUgraph = Graph(8);
    /// An instantiated graph.
    CUgraphExec = GraphExec(9);
    /// A node of a graph.
    CUgraphNode = GraphNode(10);
    /// A memory pool.
    CUmemoryPool = MemoryPool(11);
    /// A CUDA array.
    CUarray = Array(12);
    /// A mipmapped array.
    CUmipmappedArray = MipmappedArray(13);
    /// A state of the JIT linker.
    CUlinkState = LinkState(14);
    /// A green context.
    CUgreenCtx = GreenContext(15);
    /// A piece of physical memory of virtual memory management.
    CUmemGenericAllocationHandle = Physical(16);
}

/// A surface reference; it shares the handle space of texture references.
pub type CUsurfref = CUtexref;

/// The default stream under its legacy semantics, named explicitly (`CU_STREAM_LEGACY`).
pub const CU_STREAM_LEGACY: CUstream = CUstream(1);
/// The calling thread's own default stream (`CU_STREAM_PER_THREAD`).
pub const CU_STREAM_PER_THREAD: CUstream = CUstream(2);

/// A handle as the guest mints it: never zero, a canonical user-space address by its look, and holding the kind,
/// the slot of the table that both sides keep, and the slot's generation, so that a dead handle is told from
/// the live one that took its slot.
///
/// Layout: bits 45–47 are 0b010 (so that no small number and no mapped address is a handle), 40–44 kind,
/// 24–39 generation, 0–23 slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestHandle {
    /// What kind of object.
    pub kind: u8,
    /// How often the slot was used before, modulo 2^16.
    pub generation: u16,
    /// Index into the table of the kind; below [`GuestHandle::SLOTS`].
    pub slot: u32,
}

impl GuestHandle {
    /// How many objects of one kind a session may hold at a time.
    pub const SLOTS: u32 = 1 << 24;
    const TAG: u64 = 0b010;

    /// The number that the application sees.
    #[must_use]
    pub fn encode(self) -> u64 {
        Self::TAG << 45
            | u64::from(self.kind & 0x1f) << 40
            | u64::from(self.generation) << 24
            | u64::from(self.slot & (Self::SLOTS - 1))
    }

    /// What a number says of itself, or `None` where it cannot be a handle of ours.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "each part is masked to its width")]
    pub fn decode(raw: u64) -> Option<Self> {
        if raw >> 45 != Self::TAG {
            return None;
        }
        Some(Self {
            kind: (raw >> 40) as u8 & 0x1f,
            generation: (raw >> 24) as u16,
            slot: raw as u32 & (Self::SLOTS - 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_handles_survive_the_round_trip() {
        for kind in HandleKind::ALL {
            let handle = GuestHandle { kind: *kind as u8, generation: 0xfedc, slot: 0xab_cdef };
            assert_eq!(GuestHandle::decode(handle.encode()), Some(handle));
        }
    }

    #[test]
    fn foreign_numbers_are_no_handles() {
        for raw in [0, 1, 2, 0x7fff_1234_5678, u64::MAX, 0x3000_0000_0000] {
            assert_eq!(GuestHandle::decode(raw), None, "{raw:#x}");
        }
    }
}
