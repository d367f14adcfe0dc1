// What must outlive a reload: the queue, drafts and the newest groups, in IndexedDB.

const NAME = "tdmr1-label";
const STORES = { queue: "id", drafts: "assignmentId", history: "assignmentId", kept: "id" };

/** Open the stores; in memory where the browser refuses IndexedDB (then `durable` is false). */
export async function openStore() {
  try {
    return new IndexedStore(await open());
  } catch {
    return new MemoryStore();
  }
}

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      for (const [name, keyPath] of Object.entries(STORES)) {
        request.result.createObjectStore(name, { keyPath, autoIncrement: keyPath === "id" });
      }
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

class IndexedStore {
  durable = true;

  constructor(database) {
    this.database = database;
  }

  /** Every record, oldest first. */
  all(name) {
    return this.#run(name, "readonly", (store) => store.getAll());
  }

  get(name, key) {
    return this.#run(name, "readonly", (store) => store.get(key));
  }

  /** Write one record; resolves to its key once the transaction is complete. */
  put(name, record) {
    return this.#run(name, "readwrite", (store) => store.put(record));
  }

  /** Change the record there is, if any, in one transaction: two changes at once both stand. */
  change(name, key, change) {
    return this.#run(name, "readwrite", (store) => {
      const request = store.get(key);
      request.onsuccess = () => {
        if (!request.result) return;
        change(request.result);
        store.put(request.result);
      };
      return request;
    });
  }

  remove(name, key) {
    return this.#run(name, "readwrite", (store) => store.delete(key));
  }

  #run(name, mode, act) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(name, mode);
      const request = act(transaction.objectStore(name));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  }
}

class MemoryStore {
  durable = false;
  #stores = Object.fromEntries(Object.keys(STORES).map((name) => [name, new Map()]));
  #lastId = 0;

  async all(name) {
    return [...this.#stores[name].values()];
  }

  async get(name, key) {
    return this.#stores[name].get(key);
  }

  async put(name, record) {
    const key = record[STORES[name]] ?? ++this.#lastId;
    this.#stores[name].set(key, { ...record, [STORES[name]]: key });
    return key;
  }

  async change(name, key, change) {
    const record = this.#stores[name].get(key);
    if (record) change(record);
  }

  async remove(name, key) {
    this.#stores[name].delete(key);
  }
}
