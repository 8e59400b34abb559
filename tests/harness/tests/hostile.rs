//! A guest that speaks the wire format by hand and knows the worker's code: what it could hold beyond its limit, and which of
//! the driver's objects it could name after they are gone.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]

use pxos_harness::{Fixture, Guest, Server, is_on_a_gpu};
use pxos_protocol::api::op;
use pxos_protocol::codec::{Reader, Writer};
use pxos_protocol::control::decode;
use pxos_protocol::frame::{FLAG_REPLY, Header, control};
use pxos_protocol::primitive::{Argument, Compilation, Completion, Submission, WAIT};
use pxos_protocol::types::{CUresult, GuestHandle, HandleKind};

const SUCCESS: u32 = CUresult::SUCCESS.0;
const INVALID_HANDLE: u32 = CUresult::ERROR_INVALID_HANDLE.0;
const OUT_OF_MEMORY: u32 = CUresult::ERROR_OUT_OF_MEMORY.0;

/// One mebibyte.
const MIB: u64 = 1 << 20;

/// A limit that two large allocations exceed and one does not.
const LIMITED: &str = "--default-memory-max=256M";
/// See [`LIMITED`].
const LARGE: u64 = 160 * MIB;

fn handle(kind: HandleKind, slot: u32) -> u64 {
    GuestHandle { kind: kind as u8, generation: 0, slot }.encode()
}

fn limited() -> Server {
    Fixture::new().arg(LIMITED).start()
}

/// A call's result, and the words of its answer.
fn ask(guest: &mut Guest, context: u64, op: u16, write: impl FnOnce(&mut Writer<'_>)) -> (u32, Vec<u64>) {
    let (result, payload) = guest.call(op, context, write).expect("an answer");
    let mut fields = Reader::new(&payload);
    let words = std::iter::from_fn(|| fields.get::<u64>().ok()).collect();
    (result, words)
}

fn allocate(guest: &mut Guest, context: u64, bytes: u64) -> u32 {
    ask(guest, context, op::cuMemAlloc_v2, |writer| writer.put(bytes)).0
}

fn create_context(guest: &mut Guest, context: u64) -> u32 {
    ask(guest, 0, op::cuCtxCreate_v2, |writer| {
        writer.put(context);
        writer.put(0_i32);
        writer.put(0_u32);
    })
    .0
}

fn create_physical(guest: &mut Guest, context: u64, handle: u64, bytes: u64) -> u32 {
    ask(guest, context, op::cuMemCreate, |writer| {
        writer.put(handle);
        writer.put(bytes);
        // Pinned memory of device 0.
        writer.put([1_u64, 0, 1, 0, 0, 0, 0, 0]);
        writer.put(0_u64);
    })
    .0
}

fn create_pool(guest: &mut Guest, context: u64, pool: u64, handle_types: u32) -> u32 {
    ask(guest, context, op::cuMemPoolCreate, |writer| {
        writer.put(pool);
        writer.put(1_u32);
        writer.put(handle_types);
        writer.put(1_u32);
        writer.put(0_i32);
        writer.put(0_u64);
        writer.put(0_u16);
    })
    .0
}

/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
const SHAREABLE: u32 = 1;

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

fn create_stream(guest: &mut Guest, context: u64, stream: u64) -> u32 {
    ask(guest, context, op::cuStreamCreateWithPriority, |writer| {
        writer.put(stream);
        writer.put(NON_BLOCKING);
        writer.put(0_i32);
    })
    .0
}

fn allocate_from(guest: &mut Guest, context: u64, pool: u64, bytes: u64, stream: u64) -> u64 {
    let (result, words) = ask(guest, context, op::cuMemAllocFromPoolAsync, |writer| {
        writer.put(pool);
        writer.put(bytes);
        writer.put(stream);
    });
    assert_eq!(result, SUCCESS);
    words[0]
}

fn free_in(guest: &mut Guest, context: u64, address: u64, stream: u64) {
    let (result, _) = ask(guest, context, op::cuMemFreeAsync, |writer| {
        writer.put(address);
        writer.put(stream);
    });
    assert_eq!(result, SUCCESS);
}

/// A call whose only field is a handle.
fn with(guest: &mut Guest, context: u64, op: u16, handle: u64) -> u32 {
    ask(guest, context, op, |writer| writer.put(handle)).0
}

#[test]
fn a_context_that_is_not_destroyed_keeps_what_it_holds() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    assert_eq!(allocate(&mut guest, context, LARGE), SUCCESS);
    // The driver destroys no primary context, so the memory stays.
    assert_eq!(with(&mut guest, 0, op::cuCtxDestroy_v2, context), CUresult::ERROR_INVALID_CONTEXT.0);
    guest.retain();
    assert_eq!(allocate(&mut guest, context, LARGE), OUT_OF_MEMORY);
    assert!(server.session().counters.memory_used >= LARGE);
}

#[test]
fn a_context_has_one_handle_and_a_handle_one_context() {
    let server = limited();
    let mut guest = server.begin();
    let primary = guest.retain();
    // What the end of one leaves behind under the other would be of a context that is gone.
    let (second, _) = ask(&mut guest, 0, op::cuDevicePrimaryCtxRetain, |writer| {
        writer.put(handle(HandleKind::Context, 1));
        writer.put(0_i32);
        writer.put(0_u32);
    });
    assert_eq!(second, CUresult::ERROR_INVALID_VALUE.0);
    // And one that is made again under its handle would take with it what the first holds, as far as the quota goes.
    let context = handle(HandleKind::Context, 2);
    assert_eq!(create_context(&mut guest, context), SUCCESS);
    assert_eq!(allocate(&mut guest, context, LARGE), SUCCESS);
    assert_eq!(create_context(&mut guest, context), INVALID_HANDLE);
    assert_eq!(create_context(&mut guest, primary), INVALID_HANDLE);
    assert_eq!(allocate(&mut guest, primary, LARGE), OUT_OF_MEMORY);
    assert_eq!(with(&mut guest, 0, op::cuCtxDestroy_v2, context), SUCCESS);
    assert_eq!(allocate(&mut guest, primary, LARGE), SUCCESS);
}

#[test]
fn a_green_context_takes_no_other_contexts_handle() {
    if is_on_a_gpu() {
        return pxos_harness::skipped("asks what is refused before the driver is asked");
    }
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let (result, _) = ask(&mut guest, context, op::cuGreenCtxCreate, |writer| {
        writer.put(handle(HandleKind::GreenContext, 0));
        writer.put(context);
        writer.put(1_u64);
        writer.put(0_i32);
        writer.put(1_u32);
    });
    assert_eq!(result, INVALID_HANDLE);
}

#[test]
fn physical_memory_that_no_handle_names_is_not_made() {
    // The device has room for the limit and a little more: what was made and is not counted is missed.
    let server = Fixture::new().arg(LIMITED).env("PXSOFT_MEMORY", "400").start();
    let mut guest = server.begin();
    let context = guest.retain();
    for raw in [0, handle(HandleKind::Event, 0), handle(HandleKind::Physical, GuestHandle::SLOTS - 1)] {
        assert_eq!(create_physical(&mut guest, context, raw, LARGE), INVALID_HANDLE);
    }
    assert_eq!(allocate(&mut guest, context, LARGE), SUCCESS);
}

#[test]
fn physical_memory_counts_for_as_long_as_it_is_mapped() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let physical = handle(HandleKind::Physical, 0);
    let (result, reserved) = ask(&mut guest, context, op::cuMemAddressReserve, |writer| {
        writer.put(2 * LARGE);
        [0_u64; 3].into_iter().for_each(|field| writer.put(field));
    });
    assert_eq!(result, SUCCESS);
    let (small, large) = (reserved[0], reserved[0] + 2 * MIB);
    let map = |guest: &mut Guest, address: u64, bytes: u64| {
        ask(guest, context, op::cuMemMap, |writer| {
            [address, bytes, 0, physical, 0].into_iter().for_each(|field| writer.put(field));
        })
        .0
    };
    assert_eq!(create_physical(&mut guest, context, physical, 2 * MIB), SUCCESS);
    assert_eq!(map(&mut guest, small, 2 * MIB), SUCCESS);
    // The unmapping of the small piece would be taken for one of the large piece's.
    if create_physical(&mut guest, context, physical, LARGE) == SUCCESS {
        assert_eq!(map(&mut guest, large, LARGE), SUCCESS);
        let (unmapped, _) = ask(&mut guest, context, op::cuMemUnmap, |writer| {
            [small, 2 * MIB].into_iter().for_each(|field| writer.put(field));
        });
        assert_eq!((unmapped, with(&mut guest, context, op::cuMemRelease, physical)), (SUCCESS, SUCCESS));
        assert_eq!(allocate(&mut guest, context, LARGE), OUT_OF_MEMORY, "the large piece is mapped");
    }
}

#[test]
fn a_pool_made_anew_under_its_handle_counts_by_itself() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let pool = handle(HandleKind::MemoryPool, 0);
    assert_eq!(create_pool(&mut guest, context, pool, 0), SUCCESS);
    let small = allocate_from(&mut guest, context, pool, 512, 0);
    assert_eq!(with(&mut guest, context, op::cuMemPoolDestroy, pool), SUCCESS);
    assert_eq!(create_pool(&mut guest, context, pool, 0), SUCCESS);
    allocate_from(&mut guest, context, pool, LARGE, 0);
    free_in(&mut guest, context, small, 0);
    assert_eq!(with(&mut guest, context, op::cuMemPoolDestroy, pool), SUCCESS);
    assert_eq!(allocate(&mut guest, context, LARGE), OUT_OF_MEMORY, "the pool's allocation lives");
}

#[test]
fn what_a_stream_has_yet_to_free_counts_though_its_pool_is_gone() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let (pool, stream) = (handle(HandleKind::MemoryPool, 0), handle(HandleKind::Stream, 0));
    let (_, word) = ask(&mut guest, context, op::cuMemAlloc_v2, |writer| writer.put(4096_u64));
    let fill = |guest: &mut Guest, value: u32| {
        let (result, _) = ask(guest, context, op::cuMemsetD2D32Async, |writer| {
            writer.put(word[0]);
            writer.put(0_u64);
            writer.put(value);
            writer.put(4_u32);
            [1_u64, 1, 0].into_iter().for_each(|field| writer.put(field));
        });
        assert_eq!(result, SUCCESS);
    };
    fill(&mut guest, 0);
    assert_eq!(create_stream(&mut guest, context, stream), SUCCESS);
    assert_eq!(create_pool(&mut guest, context, pool, 0), SUCCESS);
    let large = allocate_from(&mut guest, context, pool, LARGE, stream);
    let (waits, _) = ask(&mut guest, context, op::cuStreamWaitValue32_v2, |writer| {
        [stream, word[0], 1].into_iter().for_each(|field| writer.put(field));
        // CU_STREAM_WAIT_VALUE_EQ
        writer.put(1_u32);
    });
    assert_eq!(waits, SUCCESS);
    free_in(&mut guest, context, large, stream);
    assert_eq!(with(&mut guest, context, op::cuMemPoolDestroy, pool), SUCCESS);
    assert_eq!(allocate(&mut guest, context, LARGE), OUT_OF_MEMORY, "kernels before the free may still run");
    fill(&mut guest, 1);
    assert_eq!(with(&mut guest, context, op::cuStreamSynchronize, stream), SUCCESS);
    assert_eq!(allocate(&mut guest, context, LARGE), SUCCESS);
}

#[test]
fn memory_that_is_passed_on_counts_as_what_it_is() {
    let server = limited();
    let (mut giver, mut taker) = (server.begin(), server.begin());
    let (from, to) = (giver.retain(), taker.retain());
    let pool = handle(HandleKind::MemoryPool, 0);
    assert_eq!(create_pool(&mut giver, from, pool, SHAREABLE), SUCCESS);
    let address = allocate_from(&mut giver, from, pool, 100 * MIB, 0);
    let (exported, of_pool) =
        ask(&mut giver, from, op::cuMemPoolExportToShareableHandle, |writer| writer.put(pool));
    // The one that gives says that it is one byte.
    let (told, of_memory) = ask(&mut giver, from, op::cuMemPoolExportPointer, |writer| {
        [address, 1].into_iter().for_each(|field| writer.put(field));
    });
    assert_eq!((exported, told), (SUCCESS, SUCCESS));
    let (opened, _) = ask(&mut taker, to, op::cuMemPoolImportFromShareableHandle, |writer| {
        writer.put(pool);
        of_pool.iter().for_each(|word| writer.put(*word));
    });
    let (imported, words) = ask(&mut taker, to, op::cuMemPoolImportPointer, |writer| {
        writer.put(pool);
        of_memory.iter().for_each(|word| writer.put(*word));
    });
    assert_eq!((opened, imported), (SUCCESS, SUCCESS));
    assert_eq!(words[1], 100 * MIB);
}

/// Puts a node that allocates into a graph, or changes one.
fn node_of(guest: &mut Guest, context: u64, op: u16, graph_or_node: u64, bytes: u64) -> (u32, Vec<u64>) {
    ask(guest, context, op, |writer| {
        writer.put(graph_or_node);
        if op == op::cuGraphAddNode_v2 {
            writer.put(0_u64);
        }
        // CU_GRAPH_NODE_TYPE_MEM_ALLOC: pinned memory of device 0.
        [10_u32, 1, 0, 1, 0].into_iter().for_each(|field| writer.put(field));
        [0, 0, bytes, 0].into_iter().for_each(|field| writer.put(field));
    })
}

#[test]
fn a_node_allocates_what_it_was_counted_for() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let (_, graph) = ask(&mut guest, context, op::cuGraphCreate, |writer| writer.put(0_u32));
    let (added, node) = node_of(&mut guest, context, op::cuGraphAddNode_v2, graph[0], MIB);
    assert_eq!(added, SUCCESS);
    let (changed, _) = node_of(&mut guest, context, op::cuGraphNodeSetParams, node[0], 2 * LARGE);
    assert_eq!(changed, CUresult::ERROR_INVALID_VALUE.0);
}

#[test]
fn a_graph_that_a_stream_captures_is_not_destroyed() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let stream = handle(HandleKind::Stream, 0);
    assert_eq!(create_stream(&mut guest, context, stream), SUCCESS);
    let (begun, graph) = ask(&mut guest, context, op::cuStreamBeginCapture_v2, |writer| writer.put(stream));
    assert_eq!(begun, SUCCESS);
    assert_eq!(with(&mut guest, context, op::cuGraphDestroy, graph[0]), CUresult::ERROR_INVALID_VALUE.0);
    let (ended, captured) = ask(&mut guest, context, op::cuStreamEndCapture, |writer| {
        writer.put(stream);
        writer.put(0_u32);
    });
    assert_eq!((ended, &captured), (SUCCESS, &graph));
    assert_eq!(with(&mut guest, context, op::cuGraphDestroy, graph[0]), SUCCESS);
}

#[test]
fn a_stream_that_captures_nothing_has_no_graph() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let create = |guest: &mut Guest| ask(guest, context, op::cuGraphCreate, |writer| writer.put(0_u32)).1[0];
    let first = create(&mut guest);
    let (told, last) = ask(&mut guest, context, op::cuStreamGetCaptureInfo_v3, |writer| writer.put(0_u64));
    assert_eq!((told, last), (SUCCESS, vec![0]));
    // Numbers are given in order: one between them would name a graph of the driver's that is none.
    assert_eq!(create(&mut guest), first + 1);
}

#[test]
fn a_graph_leads_to_no_frame() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let stream = handle(HandleKind::Stream, 0);
    assert_eq!(create_stream(&mut guest, context, stream), SUCCESS);
    let (_, memory) = ask(&mut guest, context, op::cuMemAlloc_v2, |writer| writer.put(4096_u64));
    let (begun, graph) = ask(&mut guest, context, op::cuStreamBeginCapture_v2, |writer| writer.put(stream));
    assert_eq!(begun, SUCCESS);
    // What nobody waits for goes to the driver as it stands in the frame.
    guest.post(op::cuMemcpyHtoDAsync_v2, context, |writer| {
        [memory[0], stream].into_iter().for_each(|field| writer.put(field));
        writer.put_bytes(&[7; 64]);
    });
    let read = ask(&mut guest, context, op::cuMemcpyDtoHAsync_v2, |writer| {
        [memory[0], stream, 64].into_iter().for_each(|field| writer.put(field));
    });
    assert_eq!(read.0, CUresult::ERROR_STREAM_CAPTURE_UNSUPPORTED.0);
    let (ended, captured) = ask(&mut guest, context, op::cuStreamEndCapture, |writer| {
        writer.put(stream);
        writer.put(0_u32);
    });
    assert_eq!((ended, &captured), (SUCCESS, &graph));
    let (_, nodes) = ask(&mut guest, context, op::cuGraphGetNodes, |writer| {
        [graph[0], 0, 100].into_iter().for_each(|field| writer.put(field));
    });
    assert_eq!(nodes[0], 0, "the graph has nodes: {nodes:?}");
}

/// Sends an image with a kernel `nothing`, and loads it as a library.
fn load(guest: &mut Guest, context: u64, library: u64, hash: u64) {
    let bytes =
        b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry nothing()\n{\n    ret;\n}\n\0";
    let hash = [hash, 7];
    guest.post(control::IMAGE, context, |writer| {
        writer.put(hash);
        writer.put(bytes.len() as u64);
        writer.put(0_u64);
        writer.put_bytes(bytes);
    });
    let (loaded, words) = ask(guest, context, op::cuLibraryLoadData, |writer| {
        writer.put(library);
        writer.put(hash);
        // No options, no logs, no images from before a link.
        writer.put(0_u64);
        [0_u32, 0].into_iter().for_each(|field| writer.put(field));
        writer.put(0_u64);
    });
    assert_eq!((loaded, words[0]), (SUCCESS, 0));
}

#[test]
fn only_a_live_function_is_asked_for_its_atomics() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let (library, kernel) = (handle(HandleKind::Library, 0), handle(HandleKind::Kernel, 0));
    load(&mut guest, context, library, 1);
    let (found, _) = ask(&mut guest, context, op::cuLibraryGetKernel, |writer| {
        [library, kernel].into_iter().for_each(|field| writer.put(field));
        writer.put_bytes(b"nothing");
    });
    assert_eq!(found, SUCCESS);
    let mut makes = |handle: u64, is_kernel: u64| {
        ask(&mut guest, context, control::SYSTEM_ATOMICS, |writer| {
            [handle, is_kernel].into_iter().for_each(|field| writer.put(field));
        })
    };
    assert_eq!(makes(kernel, 1), (SUCCESS, vec![0]));
    for (handle, is_kernel) in [(kernel, 0), (kernel + 1, 1), (library, 1), (0, 0), (u64::MAX, 1)] {
        let (refused, _) = makes(handle, is_kernel);
        assert_eq!(refused, CUresult::ERROR_INVALID_HANDLE.0, "{handle:#x}");
    }
}

#[test]
fn a_librarys_module_goes_with_it() {
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let (library, module) = (handle(HandleKind::Library, 0), handle(HandleKind::Module, 0));
    load(&mut guest, context, library, 1);
    let find = |guest: &mut Guest| {
        ask(guest, context, op::cuLibraryGetModule, |writer| {
            [library, module].into_iter().for_each(|field| writer.put(field));
        })
        .0
    };
    assert_eq!(find(&mut guest), SUCCESS);
    let function = |guest: &mut Guest, slot: u32| {
        let (result, _) = ask(guest, context, op::cuModuleGetFunction, |writer| {
            [module, handle(HandleKind::Function, slot)].into_iter().for_each(|field| writer.put(field));
            writer.put_bytes(b"nothing");
        });
        result
    };
    assert_eq!(function(&mut guest, 0), SUCCESS);
    // The module is the library's to unload.
    assert_eq!(with(&mut guest, context, op::cuModuleUnload, module), CUresult::ERROR_NOT_PERMITTED.0);
    assert_eq!(with(&mut guest, context, op::cuLibraryUnload, library), SUCCESS);
    assert_eq!(function(&mut guest, 1), INVALID_HANDLE);
    let launch = ask(&mut guest, context, op::cuLaunchKernel, |writer| {
        writer.put(handle(HandleKind::Function, 0));
        writer.put(0_u64);
        writer.put([1 << 32 | 1, 1 << 32 | 1_u64]);
        writer.put([1 << 32 | 1, 0_u64]);
        writer.put(0_u32);
        writer.put_bytes(&[]);
    });
    assert_eq!(launch.0, INVALID_HANDLE);
    // Nothing of it is left: the handles name what comes next.
    load(&mut guest, context, library, 2);
    assert_eq!((find(&mut guest), function(&mut guest, 0)), (SUCCESS, SUCCESS));
}

#[test]
fn a_submission_outlives_its_stream() {
    const DIVIDE: &str = "GPU_KERNEL k\nGPU_PARAM o int[]\nGPU_PARAM n int\nGPU_THREAD_CODE:\n    THREAD_ID -> t\n    \
                          CALCULATE x = 7 / n\n    STORE x -> o[t]\nGPU_END\n";
    let server = limited();
    let mut guest = server.begin();
    let context = guest.retain();
    let (_, payload) = guest
        .call(control::COMPILE_PRIMITIVE, context, |writer| writer.put_bytes(DIVIDE.as_bytes()))
        .expect("an answer");
    let Ok(Compilation::Compiled(program)) = decode(&payload) else { panic!("it compiles") };
    let (_, memory) = ask(&mut guest, context, control::ALLOC_MEMORY, |writer| writer.put(4_u64));
    // More often than there are records of faults: each must come back, though its stream is gone when it is cleared.
    for slot in 0..70 {
        let stream = handle(HandleKind::Stream, slot);
        assert_eq!(create_stream(&mut guest, context, stream), SUCCESS);
        let submission = Submission {
            program: program.number,
            kernel: 0,
            stream,
            elements: 0,
            first: 0,
            flags: 0,
            arguments: vec![Argument::Array { address: memory[0], length: 1 }, Argument::Scalar(0)],
        };
        let (_, payload) = guest
            .call(control::SUBMIT_PRIMITIVE, context, |writer| submission.write(writer))
            .expect("an answer");
        let filed = Completion::read(&mut Reader::new(&payload)).expect("a completion");
        assert_eq!(filed.result, CUresult::ERROR_NOT_READY.0, "round {slot}: {filed:?}");
        assert_eq!(with(&mut guest, context, op::cuStreamDestroy_v2, stream), SUCCESS);
        let (_, payload) = guest
            .call(control::QUERY_STATUS, context, |writer| {
                [filed.number, WAIT].into_iter().for_each(|field| writer.put(field));
            })
            .expect("an answer");
        let ended = Completion::read(&mut Reader::new(&payload)).expect("a completion");
        assert_eq!(ended.result, CUresult::ERROR_LAUNCH_FAILED.0, "round {slot}: {ended:?}");
    }
}

#[test]
fn default_streams_of_threads_are_streams_of_the_vm() {
    let server = Fixture::new().arg("--default-max-streams=4").start();
    let mut guest = server.begin();
    let context = guest.retain();
    let mut made = 0;
    for thread in 1..=20 {
        let header = Header { flags: FLAG_REPLY, thread, ..guest.header(op::cuStreamQuery, context) };
        // CU_STREAM_PER_THREAD
        assert!(guest.send(header, &2_u64.to_le_bytes()));
        let (result, _) = guest.answer(header.request).expect("an answer");
        assert!(result == SUCCESS || result == OUT_OF_MEMORY, "thread {thread}: {result}");
        made += u32::from(result == SUCCESS);
    }
    assert_eq!(made, 4);
}
