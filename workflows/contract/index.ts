/**
 * The language that all rooms share: ids, signals, queries and types, one file per subject.
 * Plain JSON only: no Date, Map, Set or enum object crosses a boundary. Imports Temporal's packages and nothing else.
 */
export * from './attention';
export * from './call';
export * from './callback';
export * from './conversation';
export * from './facts';
export * from './retention';
export * from './search-attributes';
export * from './settlement';
